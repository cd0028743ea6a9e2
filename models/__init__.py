"""Language models of the market and what runs them: no csp, no trainer."""
