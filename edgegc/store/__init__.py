"""SQLite behind one writer and one reader thread; plain functions fn(connection, ...) per aggregate."""
