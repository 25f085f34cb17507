"""Tables, migrations and the opening of a database."""
