"""`limbeck loadtest`: the highest rate at which a run's selection keeps an objective on this machine.

`limbeck tune-serve`: the setting of the server with which that rate is highest.
"""

from compress.loadtest.every import loadtest_all as loadtest_all
from compress.loadtest.measure import Asked as Asked
from compress.loadtest.measure import loadtest as loadtest
from compress.loadtest.tune import TuneAsked as TuneAsked
from compress.loadtest.tune import tune_serve as tune_serve
