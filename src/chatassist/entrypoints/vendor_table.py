"""The table of known AI vendors, for a terminal and for docs/vendors.md. Rows are words, as the container has them."""

from collections.abc import Mapping, Sequence

_APART = "variables"
"""What no column holds."""


def as_text(rows: Sequence[Mapping[str, str]]) -> str:
    """Return aligned columns: one line a vendor, so that one can be picked by its name."""
    lines = [list(_heads(rows)), *(list(_cells(row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def as_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the same as a table, and for each vendor the variables to copy."""
    heads = _heads(rows)
    table = [heads, ["---"] * len(heads), *(_cells(row) for row in rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    for row in rows:
        lines += ["", f"**{row['vendor']}**", "", "```sh", row[_APART], "```"]
    return "\n".join(lines) + "\n"


def _heads(rows: Sequence[Mapping[str, str]]) -> Sequence[str]:
    return [head for head in rows[0] if head != _APART]


def _cells(row: Mapping[str, str]) -> Sequence[str]:
    return [cell or "–" for head, cell in row.items() if head != _APART]
