"""How the embedded demo model was made: the drawing of its postcards, the training, the figures, the card."""
