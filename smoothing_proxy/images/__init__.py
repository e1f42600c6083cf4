"""Pictures: decoded to one canonical form, resized as a linear map, noised in integers, encoded."""
