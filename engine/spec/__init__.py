"""Published documents as data types; no behaviour beyond parsing and printing them."""
