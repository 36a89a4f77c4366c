# One image for web, worker, scheduler and migrations; the command says which.
FROM python:3.13-slim AS build
WORKDIR /app
RUN python -m venv /venv
# With requirements-otel.lock it can send traces.
ARG REQUIREMENTS=requirements.lock
COPY requirements.lock requirements-otel.lock ./
RUN /venv/bin/pip install --no-cache-dir --require-hashes --requirement "$REQUIREMENTS"
COPY . .
# Readable for the user below, whatever the umask of the clone; compiled, because that user writes nothing.
RUN chmod -R a+rX . && python -m compileall -q .

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --no-log-init --no-create-home --home-dir /app --uid 10001 backbeat
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
USER 10001
EXPOSE 8000
CMD ["python", "wsgi.py"]
