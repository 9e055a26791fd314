"""Operations bound to widths."""
