#!/bin/bash
# Whether the server in this container answers requests. It is asked every ten seconds for as long as the container runs:
# this takes milliseconds, and a Python that has imported gRPC most of a second. With TLS it is `tserver health`.
exec 3<>"/dev/tcp/127.0.0.1/${TSERVER_HTTP_LISTEN##*:}" || exit 1
printf 'GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r _ status _ <&3
[[ $status == 200 ]]
