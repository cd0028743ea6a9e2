from dataclasses import dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class RssConfig:
    url: str
@dataclass(frozen=True, slots=True, kw_only=True)
class YahooNewsConfig:
    symbols: tuple[str, ...]
@dataclass(frozen=True, slots=True, kw_only=True)
class FollowConfig:
    path: str
@dataclass(frozen=True, slots=True, kw_only=True)
class UniverseConfig:
    path: str = ""
def news_feed(sources, universe): raise NotImplementedError
