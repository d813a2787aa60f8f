// Builds opencontainers/runtime-tools' runtimetest, which judges from inside a container whether its runtime did as it was told:
//
//	cd test/runtimetest && go build -o runtimetest github.com/opencontainers/runtime-tools/cmd/runtimetest
//
// A module of its own: runtimetest v0.9.0 only builds with an old version of opencontainers/selinux.
module github.com/micropod/micropod/test/runtimetest

go 1.26.0

tool github.com/opencontainers/runtime-tools/cmd/runtimetest

require (
	github.com/cpuguy83/go-md2man/v2 v2.0.7 // indirect
	github.com/hashicorp/errwrap v1.0.0 // indirect
	github.com/hashicorp/go-multierror v1.1.1 // indirect
	github.com/mndrix/tap-go v0.0.0-20171203230836-629fa407e90b // indirect
	github.com/opencontainers/runtime-spec v1.3.0 // indirect
	github.com/opencontainers/runtime-tools v0.9.0 // indirect
	github.com/opencontainers/selinux v1.9.1 // indirect
	github.com/russross/blackfriday/v2 v2.1.0 // indirect
	github.com/sirupsen/logrus v1.9.4 // indirect
	github.com/syndtr/gocapability v0.0.0-20200815063812-42c35b437635 // indirect
	github.com/urfave/cli v1.22.17 // indirect
	golang.org/x/sys v0.13.0 // indirect
	gopkg.in/yaml.v2 v2.4.0 // indirect
)
