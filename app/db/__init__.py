"""The database: engine, metadata and migrations. What is stored belongs to the rooms that store it."""
