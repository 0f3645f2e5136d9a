"Fixtures that several files share, each made once."
from tiny_runs import done, pictures

__all__ = ['done', 'pictures']
