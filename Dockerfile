# hpo on the CPU. Build: docker build -t hpo .
# Run: docker run --rm -v "$PWD/studies:/studies" hpo run search
# Watch: docker run --rm -v "$PWD/studies:/studies" -p 127.0.0.1:8080:8080 hpo dashboard --host 0.0.0.0
FROM python:3.12-slim

# torch without CUDA: 200 MB instead of several GB.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

COPY pyproject.toml README.md LICENSE /src/
COPY hpo /src/hpo
COPY studies /src/studies
RUN pip install --no-cache-dir "/src[postgresql]" && rm -r /src

# Databases, reports and datasets stay in the volume.
RUN useradd --create-home hpo && mkdir /studies && chown hpo /studies
USER hpo
WORKDIR /studies
VOLUME /studies
ENV HPO_DATA_DIR=/studies/data
EXPOSE 8080
ENTRYPOINT ["hpo"]
CMD ["--help"]
