"""Attacks on a raw and on a hardened classifier, and whole tables of defences, attacks and classifiers."""
