"""What several services share about a reply: who produces it, who follows it, and until when its owner is believed."""
