"""`limbeck loadtest`: the highest rate at which a run's selection keeps an objective on this machine."""

from compress.loadtest.measure import Asked as Asked
from compress.loadtest.measure import loadtest as loadtest
