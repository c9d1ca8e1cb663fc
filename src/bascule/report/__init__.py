"""What people read: tables and the report, from the record alone. Imports no torch."""
