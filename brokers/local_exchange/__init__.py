"""An exchange on this machine that speaks Binance's spot protocol: a dry-run venue, and a true peer for tests."""
