"""One answer to how S3 is reached, for everybody who asks it: boto3, the Delta library, DuckDB and the demuxer.

What was not given as an option follows the AWS environment variables, then the profile in the configuration file
with its `services` section, as the AWS SDK has it. `StorageOptions` keep the variables that they were made under,
so that workers reach what the driver reaches. `access` gives the result for one bucket, and
`delta_options` and `duckdb_secrets` say it in the words of the two other libraries, with nothing left for them to
look up themselves.

Errors of the SDK end in `calling`: by the table in faults.py they become errors of our tree.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from vidproc.checked import settings
from vidproc.errors import ConfigError, NotFound, Refused, SourceChanged, TransientError
from vidproc.secrets import redact, remember
from vidproc.settings import StorageSettings, check_endpoint
from vidproc.storage import faults
from vidproc.storage.addresses import s3_address, split_s3_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

VARIABLES = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
"""Environment variables that say which store is meant, kept with the options. Credentials never travel."""

DEFAULT_REGION = "us-east-1"


def _environment() -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name in VARIABLES if (value := os.environ.get(name)))


@settings
class StorageOptions(StorageSettings):
    """How to reach S3: what a job says about it, and the environment at the time."""

    hurried: bool = False
    """For questions that somebody waits for: a store that does not answer is given up within a minute or so. A job that
    works through a night waits for longer."""
    environment: tuple[tuple[str, str], ...] = field(default_factory=_environment, repr=False)
    """The variables of VARIABLES as they were."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in self.environment:
            if name.startswith("AWS_ENDPOINT_URL"):
                check_endpoint(value, name)


# --- options, environment and profile, resolved -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reach:
    session: Any
    """botocore's: it caches credentials and renews those that expire."""
    endpoint_url: str | None
    """None: AWS's own."""
    region: str
    addressing_style: str
    """auto, path or virtual."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the requests for one bucket go, and who signs them. Never log, store or pickle it."""

    bucket: str
    endpoint: str
    """`https://host[:port][/path]`, without the bucket."""
    path_style: bool
    region: str
    key_id: str | None = field(default=None, repr=False)
    """None: nobody signs."""
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


_Where = tuple[int, StorageOptions, tuple[str | None, ...]]
_reaches: dict[_Where, _Reach] = {}
_clients: dict[_Where, S3Client] = {}
_making = threading.RLock()


def _holds_for(options: StorageOptions) -> _Where:
    """What an answer holds for: this process, and what it is told of profiles."""
    told = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
    return os.getpid(), options, tuple(map(os.environ.get, told))


def endpoint_of(options: StorageOptions) -> str | None:
    """The endpoint that is meant, None: AWS's own. Raises ConfigError for a profile that is not there."""
    return _reach(options).endpoint_url


def _reach(options: StorageOptions) -> _Reach:
    """Worked out once a process."""
    where = _holds_for(options)
    with _making:
        if where not in _reaches:
            _reaches[where] = _resolve(options)
        return _reaches[where]


def _resolve(options: StorageOptions) -> _Reach:
    import botocore.session
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    session = botocore.session.Session(profile=options.profile)
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment_of)
    try:
        profile = session.get_scoped_config()
        services = session.full_config.get("services", {}).get(profile.get("services"), {})
    except ProfileNotFound:
        name = options.profile or session.profile
        files = " or ".join(session.get_config_variable(f) for f in ("config_file", "credentials_file"))
        named = "" if options.profile else " (named by AWS_PROFILE)"
        raise ConfigError(f"there is no AWS profile {name!r}{named}: it must stand in {files}") from None
    except BotoCoreError as e:
        raise ConfigError(f"the AWS configuration cannot be read: {redact(str(e))}") from e
    variables = dict(options.environment)
    ignored = variables.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") or str(
        profile.get("ignore_configured_endpoint_urls", "")
    )
    endpoint = options.endpoint_url
    if endpoint is None and ignored.lower() != "true":
        own = services.get("s3", {}) if isinstance(services, dict) else {}
        endpoint = (
            variables.get("AWS_ENDPOINT_URL_S3")
            or variables.get("AWS_ENDPOINT_URL")
            or own.get("endpoint_url")
            or profile.get("endpoint_url")
        )
        if endpoint is not None:
            check_endpoint(endpoint, "the S3 endpoint of the AWS profile")
    style = "auto" if endpoint is None else "path"
    if options.path_style is not None:
        style = "path" if options.path_style else "virtual"
    elif isinstance(told := profile.get("s3"), dict):
        style = str(told.get("addressing_style", style))
        if style not in ("auto", "path", "virtual"):
            raise ConfigError(f"s3.addressing_style of the AWS profile is auto, path or virtual, not {style!r}")
    region = (
        options.region
        or variables.get("AWS_REGION")
        or variables.get("AWS_DEFAULT_REGION")
        or profile.get("region")
        or DEFAULT_REGION
    )
    return _Reach(session, endpoint, region, style)


def _moment_of(value: Any) -> datetime | None:
    """None where it is no time that can be understood: the SDK would refuse the whole page."""
    from botocore.utils import parse_timestamp

    try:
        return parse_timestamp(value)
    except (ValueError, TypeError, OverflowError, RuntimeError):
        return None


def signed(options: StorageOptions | None) -> StorageOptions:
    """The same for what is the user's own, a lake or a place to write to: `anonymous` is for public archives. It stays
    where nobody has credentials, so that a public lake can be read."""
    options = options or StorageOptions()
    if options.anonymous and _reach(options).session.get_credentials() is not None:
        return replace(options, anonymous=False)
    return options


def hurried(options: StorageOptions | None) -> StorageOptions:
    """The same for a question that somebody waits for."""
    return replace(options or StorageOptions(), hurried=True)


def client(options: StorageOptions) -> S3Client:
    """Made at first use and kept for the process: clients are safe among threads, making one is not."""
    where = _holds_for(options)
    with _making:
        if where not in _clients:
            _clients[where] = _make_client(options)
        return _clients[where]


def _make_client(options: StorageOptions) -> S3Client:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    reach = _reach(options)
    style: Any = {"addressing_style": reach.addressing_style}
    more: Any = {"ignore_configured_endpoint_urls": True}  # they are in `reach`
    made: S3Client = boto3.session.Session(botocore_session=reach.session).client(
        "s3",
        endpoint_url=reach.endpoint_url,
        region_name=reach.region,
        config=Config(
            # The default presigner still makes version 2 signatures, which many servers refuse.
            signature_version=UNSIGNED if options.anonymous else "s3v4",
            s3=style,
            retries={"mode": "standard", "total_max_attempts": 4 if options.hurried else 5},
            connect_timeout=5,
            read_timeout=10 if options.hurried else 20,
            max_pool_connections=32,
            # Trailing checksums are refused by many servers that only speak the older S3.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **more,
        ),
    )
    # The SDK alone would follow a bucket into another region, and leave the other readers behind.
    made.meta.events.register("before-call.s3", _stay)
    made.meta.events.register("before-send.s3.HeadBucket", _stop)
    return made


def _stay(params: dict[str, Any], **_: Any) -> None:
    params.get("context", {}).setdefault("s3_redirect", {})["redirected"] = True


class _Asked(Exception):
    """Carries where a request would have gone."""


def _stop(request: Any, **_: Any) -> None:
    raise _Asked(request.url)


def access(bucket: str, options: StorageOptions) -> Access:
    """Raises ConfigError where there are no credentials, or where they cannot be renewed."""
    uri = s3_address(bucket)
    with calling(uri, options):
        asked, token = client(options), None
        frozen = None
        if not options.anonymous:
            credentials = _reach(options).session.get_credentials()
            if credentials is None:
                raise _no_credentials(uri)
            frozen = credentials.get_frozen_credentials()
            token = frozen.token or None
            remember(frozen.secret_key, token)
        url = urlsplit(_where(asked, bucket, options))
        host, path = url.netloc, url.path.rstrip("/")
        if virtual := host.startswith(f"{bucket}."):
            host = host.removeprefix(f"{bucket}.")
        else:
            path = path.removesuffix(f"/{bucket}")
        return Access(
            bucket,
            endpoint=f"{url.scheme}://{host}{path}",
            path_style=not virtual,
            region=asked.meta.region_name,
            key_id=frozen and frozen.access_key,
            secret=frozen and frozen.secret_key,
            token=token,
        )


_places: dict[tuple[int, StorageOptions, str], str] = {}


def _where(asked: S3Client, bucket: str, options: StorageOptions) -> str:
    """The URL of a bucket, as the SDK makes it: what it would ask is stopped before it is sent. Only the SDK knows
    all that decides about it: names with dots, regions, dual stack, FIPS, acceleration."""
    key = os.getpid(), options, bucket
    if key not in _places:
        try:
            asked.head_bucket(Bucket=bucket)
        except _Asked as e:
            _places[key] = str(e)
    return _places[key]


def presigned(bucket: str, key: str, options: StorageOptions, expires_s: int) -> str:
    """A URL that reads one object for that time. The SDK's own presigner always asks AWS's global endpoint."""
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    of = access(bucket, options)
    scheme, _, rest = of.endpoint.partition("://")
    place = f"{of.endpoint}/{bucket}" if of.path_style else f"{scheme}://{bucket}.{rest}"
    request = AWSRequest(method="GET", url=f"{place}/{quote(key, safe='/-._~')}")
    if of.key_id is not None:
        credentials = Credentials(of.key_id, of.secret or "", of.token)
        S3SigV4QueryAuth(credentials, "s3", of.region, expires=expires_s).add_auth(request)
    return str(request.url)


def delta_options(of: Access, options: StorageOptions) -> dict[str, str]:
    """`storage_options` of the Delta library, each told, so that it takes none from the environment itself."""
    scheme, _, rest = of.endpoint.partition("://")
    found = {
        "AWS_ENDPOINT_URL": of.endpoint if of.path_style else f"{scheme}://{of.bucket}.{rest}",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false" if of.path_style else "true",
        "AWS_ALLOW_HTTP": "true" if scheme == "http" else "false",
        "AWS_REGION": of.region,
        "AWS_SKIP_SIGNATURE": "true" if of.key_id is None else "false",
        "timeout": "15s" if options.hurried else "60s",
        "connect_timeout": "5s",
    }
    if options.hurried:
        found["retry_timeout"] = "30s"
    if of.key_id is not None:
        found |= {"AWS_ACCESS_KEY_ID": of.key_id, "AWS_SECRET_ACCESS_KEY": of.secret or ""}
        if of.token:
            found["AWS_SESSION_TOKEN"] = of.token
        elif "AWS_SESSION_TOKEN" in os.environ:
            # It belongs to the keys beside it, and the library would take it for ours. Hidden from native code alone:
            # `os.environ`, where the SDK looks for those keys, keeps it.
            os.unsetenv("AWS_SESSION_TOKEN")
    return found


def duckdb_secrets(of: Access) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters of DuckDB's `CREATE SECRET (TYPE s3, ...)`: for its Delta extension, which reads the logs of tables,
    and for its own reader, which reads their files. Where the bucket is a part of the host's name the one wants it in
    the endpoint, and the other puts it there itself."""
    scheme, _, rest = of.endpoint.partition("://")
    files = {
        "ENDPOINT": rest,
        "USE_SSL": "false" if scheme == "http" else "true",
        "URL_STYLE": "path" if of.path_style else "vhost",
        "REGION": of.region,
    }
    if of.key_id is not None:
        files |= {"KEY_ID": of.key_id, "SECRET": of.secret or ""}
        if of.token:
            files["SESSION_TOKEN"] = of.token
    return (files if of.path_style else files | {"ENDPOINT": f"{of.bucket}.{rest}"}), files


# --- asking for one object ------------------------------------------------------------------------------


def head(bucket: str, key: str, options: StorageOptions) -> HeadObjectOutputTypeDef:
    """Raises NotFound, or Refused for the store's own reason: the answer to a HEAD has no body that could name it,
    so whatever was refused is asked for once more, by a GET of its first byte."""
    uri = s3_address(bucket, key)
    try:
        with calling(uri, options):
            return client(options).head_object(Bucket=bucket, Key=key)
    except ConfigError:
        ask(uri, options)
        raise


def ask(uri: str, options: StorageOptions, etag: str | None = None) -> None:
    """Whether one object can be read, in the store's own words: raises what reading its first byte raises."""
    bucket, key = split_s3_uri(uri)
    match: Any = {} if etag is None else {"IfMatch": f'"{etag}"'}
    with suppress(RangePastEnd), calling(uri, options):
        client(options).get_object(Bucket=bucket, Key=key, Range="bytes=0-0", **match)["Body"].close()


# --- errors --------------------------------------------------------------------------------------------


class RangePastEnd(Exception):
    """A range begins where the object has ended."""


def status_of(e: BaseException) -> int:
    answer = getattr(e, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def calling(uri: str, options: StorageOptions) -> Iterator[None]:
    """The border: what the SDK raises becomes an error of our tree."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        NoAuthTokenError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
        TokenRetrievalError,
        UnauthorizedSSOTokenError,
    )

    try:
        yield
    except ClientError as e:
        answer: Any = e.response
        error, headers = answer.get("Error", {}), answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        raise refusal(
            error.get("Code", ""), status_of(e), uri, options,
            message=error.get("Message", ""), region=error.get("Region") or headers.get("x-amz-bucket-region", ""),
        ) from e  # fmt: skip
    except (NoCredentialsError, PartialCredentialsError) as e:
        raise _no_credentials(uri) from e
    except (CredentialRetrievalError, TokenRetrievalError, NoAuthTokenError, UnauthorizedSSOTokenError) as e:
        raise _no_credentials(uri, redact(str(e))) from e
    except ParamValidationError as e:
        raise ConfigError(f"{uri} is not a place on S3: {redact(str(e))}") from e
    except (BotoCoreError, OSError) as e:
        raise TransientError(
            f"{uri}: S3{_at(options)} did not answer well ({type(e).__name__}): check the endpoint, the network and "
            "that the store is up, and try again"
        ) from e
    except Exception as e:
        if type(e).__module__.startswith("urllib3"):
            raise TransientError(f"{uri}: the connection broke while reading ({type(e).__name__})") from e
        raise


def _at(options: StorageOptions) -> str:
    endpoint = endpoint_of(options)
    return f" at {endpoint}" if endpoint else ""


def _no_credentials(uri: str, why: str = "") -> ConfigError:
    return Refused(
        f"{uri}: no usable AWS credentials{f' ({why})' if why else ''}; set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, name a profile, or read anonymously",
        "no_credentials",
    )


def refusal(
    code: str, status: int, uri: str, options: StorageOptions, *, message: str = "", region: str = ""
) -> Exception:
    """The store's answer as an error of ours. A refusal is a Refused, with the class of the table in faults.py."""
    if code == "InvalidRange" or status == 416:
        return RangePastEnd()
    meaning = faults.of_s3(code, status, message)
    if meaning is None:
        return ConfigError(f"{uri}: S3 refused the request ({code or status})")
    match meaning.kind:
        case "missing":
            return NotFound(f"there is nothing at {uri}")
        case "changed":
            return SourceChanged(f"{uri} was changed while it was read; the next run takes the new content")
        case "passing":
            why = f": {meaning.way_out}" if meaning.way_out else ""
            return TransientError(f"{uri}: S3 answered {code or status}{why}")
    if meaning is faults.BUCKET:
        return Refused(
            f"{uri}: there is no such bucket{_at(options)}; check its name and the endpoint, or create it", "no_bucket"
        )
    where = f" ({region})" if meaning is faults.REGION and region else ""
    return Refused(f"{uri}: access refused ({code or status}): {meaning.way_out}{where}", meaning.error_class)
