"""The store: in memory for one keyless process, in SQL (SQLite, MySQL, MariaDB) for everything else."""
