"""What reads a headline and advises: several backends behind one protocol, and the guard in front of them. No csp."""
