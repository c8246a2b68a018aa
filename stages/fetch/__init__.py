"""Stage fetch: brings the selected base model to models/base."""
