"""How bytes are made smaller, and back, within declared bounds."""
