module quorate/tests/clients/kubernetes

go 1.26.0
