"""Pages of studies: frozen tables, figures and sentences, and the study that writes, displays and records them."""
