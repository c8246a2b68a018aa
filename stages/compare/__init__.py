"""The models of two revisions on the texts that both tests hold. No stage: it reads what the stages wrote."""
