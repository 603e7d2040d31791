"""The documents of the format as typed structs, and the one boundary where bytes become them."""
