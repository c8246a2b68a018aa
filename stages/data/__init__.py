"""Files of texts in the formats that users have: the readers of prepare and predict."""
