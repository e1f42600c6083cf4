"""The whole system on this machine: handwritten digits behind a support vector classifier."""
