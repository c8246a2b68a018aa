"""Files of texts as users have them: what prepare and predict read."""
