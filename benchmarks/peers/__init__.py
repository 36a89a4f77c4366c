"""The same work on other task queues. Most of it runs in an environment without this project's packages."""
