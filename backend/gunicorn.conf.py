"""How Gunicorn serves the application. What an operator may change is a variable in ``config.env``."""

from config.env import load

env = load()

wsgi_app = "config.wsgi:application"
bind = env.GUNICORN_BIND
workers = env.WEB_CONCURRENCY
# Threads, so that a request that waits for the database does not keep a health check waiting.
worker_class = "gthread"
threads = env.GUNICORN_THREADS
# The application is loaded before the workers fork: a broken release stops at once, and they share its memory.
# Nothing in it touches the database while it is loaded; sockets must not be shared across a fork.
preload_app = True

timeout = env.GUNICORN_TIMEOUT_SECONDS
graceful_timeout = env.GUNICORN_GRACEFUL_TIMEOUT_SECONDS
# Longer than nginx keeps idle connections to the backend (nginx/servers/, keepalive_timeout of the upstream), so
# that nginx, never Gunicorn, closes them: the other way round a request may meet a closing connection.
keepalive = 75

# The workers' heartbeat files: the root file system is read-only, and /dev/shm is memory.
worker_tmp_dir = "/dev/shm"  # noqa: S108
# On by default since 25.1; nothing here uses it, and it can stop the server.
control_socket_disable = True

# nginx writes the access log; errors go to stderr.
accesslog = None
errorlog = "-"
loglevel = "info"
