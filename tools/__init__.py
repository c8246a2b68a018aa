"""Commands for those who change this project; `make help` lists them."""
