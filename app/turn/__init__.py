"""The vocabulary every dialect and every engine speaks: values, events, errors. No I/O, no wire format."""
