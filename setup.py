"""Packaging: `pip install .`, with extras for what only some need."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="multihot",
    version="0.1.0",
    description="Multi-label text classification at scale: Apache Beam preprocessing, "
    "distributed Keras 3 training, SavedModel serving",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(
        include=["beam_jobs", "beam_jobs.*", "trainer", "trainer.*", "multihot"]
    ),
    package_data={
        "multihot": ["py.typed", "docstrings.yaml"],
        "trainer.serving": ["templates/*"],
        "trainer.report": ["templates/*"],
    },
    install_requires=[
        # These are known to agree; the SavedModel's ops and the runners' behaviour depend on them.
        "tensorflow==2.21.*",
        "tensorflow-text==2.21.*",
        # 27 kB: the messages of TensorFlow Serving's warm-up requests
        "tensorflow-serving-api==2.21.*",
        "tensorboard==2.21.*",
        "keras>=3.12,<3.16",  # 3.12 is the last for Python 3.10
        "apache-beam==2.77.0",
        "numpy>=2.0,<2.5",
        "pyarrow>=18,<26",
        "zstandard>=0.22,<1",
        "charset-normalizer>=3.3,<4",
        "scikit-learn>=1.5,<2",
        "scipy>=1.13,<2",
        "threadpoolctl>=3.5,<4",  # which scikit-learn requires anyway
        "matplotlib>=3.9,<4",
        "google-crc32c>=1.6,<2",
        "pydantic>=2.10,<3",
        "ruamel.yaml>=0.18.6,<0.20",
        "rich>=13.9,<16",
        "jinja2>=3.1.4,<4",
        "filelock>=3.21,<5",
        "packaging>=24",
        "shtab>=1.7,<2",  # pure Python, without requirements
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]==2.21.*"],
        "gcp": [
            "apache-beam[gcp]==2.77.0",
            "setuptools>=69",
        ],  # Dataflow's workers install what Beam builds with it
        "aws": ["apache-beam[aws]==2.77.0"],
        "hadoop": ["apache-beam[hadoop]==2.77.0"],
        "bench": ["fasttext-wheel==0.9.2; python_version < '3.13'"],
        "tune": ["optuna>=4.5,<6"],
        # KerasHub imports safetensors for directories of Hugging Face and does not declare it.
        "pretrained": ["keras-hub>=0.32,<0.33", "safetensors>=0.5,<1"],
        "serve": ["starlette>=0.40,<2", "uvicorn>=0.30,<1"],
        "docs": [
            "mkdocs>=1.6.1,<2",
            "mkdocs-material>=9.6,<10",
            "mkdocstrings[python]>=1,<2",
        ],
        "test": [
            "pytest>=8.3,<10",
            "pytest-xdist>=3.6,<4",
            "hypothesis>=6.100,<7",
            "ruff==0.17.5",
            "import-linter>=2.5,<3",
            "pandas>=2.2,<4",
            "ipykernel>=6.29,<8",
            "nbclient>=0.10,<1",
            "tensorflow-datasets>=4.9.7,<5",
            "scikit-multilearn==0.2.0",
            "starlette>=0.40,<2",
            "uvicorn>=0.30,<1",
            "httpx>=0.27,<1",
            "optuna>=4.5,<6",
            "keras-hub>=0.32,<0.33",
            "safetensors>=0.5,<1",
            "tokenizers>=0.21,<1",
            "sentencepiece>=0.2,<1",
            "setuptools>=69",
            "wheel>=0.45,<1",
            "selenium>=4.25,<5",
            "moto[server]>=5,<6",  # S3 on localhost
            "boto3>=1.40,<2",
            "gcp-storage-emulator>=2024.8",
            "google-cloud-storage>=2.18,<4",
            "google-cloud-dataflow-client>=0.8,<1",  # Beam's client of Dataflow
            "hdfs>=2.7,<3",
        ],
    },
    entry_points={
        "console_scripts": [
            "multihot=multihot.command:run",
            "multihot-preprocess=multihot.command:run",
            "multihot-inspect=multihot.command:run",
            "multihot-bulk-predict=multihot.command:run",
            "multihot-train=multihot.command:run",
            "multihot-tune=multihot.command:run",
            "multihot-audit=multihot.command:run",
            "multihot-evaluate=multihot.command:run",
            "multihot-export=multihot.command:run",
            "multihot-predict=multihot.command:run",
            "multihot-report=multihot.command:run",
            "multihot-explain=multihot.command:run",
            "multihot-serve=multihot.command:run",
            "multihot-worker-pool=multihot.command:run",
            # what engines start
            "multihot-worker=beam_jobs.worker:run",
        ]
    },
)
