"""Your turn: each chapter's main experiment as one call on your own material, with the controls of the chapter."""
