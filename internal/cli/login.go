// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micropod/micropod/internal/image/credentials"
	"github.com/micropod/micropod/internal/image/registry"
)

// maxPassword bounds what is read as one, in bytes: tokens of clouds have some thousands.
const maxPassword = 64 << 10

type loginOptions struct {
	user, password string
	fromStdin      bool
}

func newLogin(a *app) *cobra.Command {
	o := &loginOptions{}
	c := &cobra.Command{
		Use:   "login [flags] [SERVER]",
		Short: "Log in to a registry",
		Long: `Log in to a registry (default: Docker Hub).

User and password are tried at the registry and kept where docker keeps them: in config.json of
$DOCKER_CONFIG or ~/.docker, or with the credential helper that it names. Later pulls of the same user use them.`,
		Example: `  micropod login
  cat token | micropod login -u ci --password-stdin registry.example.org`,
		Args: atMostArgs(1, "one server at most"),
		RunE: func(c *cobra.Command, args []string) error {
			return runLogin(c.Context(), a, o, serverOf(args))
		},
	}
	c.Flags().StringVarP(&o.user, "username", "u", "", "`name` of the user")
	c.Flags().StringVarP(&o.password, "password", "p", "", "`password` or token; others on this host may see it: prefer --password-stdin")
	c.Flags().BoolVar(&o.fromStdin, "password-stdin", false, "read the password from standard input")
	return c
}

func newLogout(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "logout [SERVER]",
		Short:   "Forget the credentials for a registry",
		Example: `  micropod logout registry.example.org`,
		Args:    atMostArgs(1, "one server at most"),
		RunE: func(_ *cobra.Command, args []string) error {
			server := serverOf(args)
			if err := credentials.Logout(server); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "credentials for %s are removed\n", shownServer(server))
			return nil
		},
	}
}

// serverOf takes a server as people paste it, with scheme and path; empty is Docker Hub.
func serverOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	host := strings.TrimPrefix(strings.TrimPrefix(args[0], "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	return host
}

func shownServer(host string) string {
	if host == "" {
		return "docker.io"
	}
	return host
}

func runLogin(ctx context.Context, a *app, o *loginOptions, server string) error {
	user, password, err := o.ask(a)
	if err != nil {
		return err
	}
	conf, err := a.config.Load()
	if err != nil {
		return err
	}
	client, err := registry.New(registry.Config{Insecure: conf.InsecureRegistries, CertDirs: registry.DefaultCertDirs()})
	if err != nil {
		return err
	}
	defer client.Close()
	err = credentials.Login(ctx, client, server, user, password)
	if errors.Is(err, registry.ErrUnauthorized) {
		return fmt.Errorf("%s does not take this user and password", shownServer(server))
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, "Login Succeeded")
	return nil
}

// ask completes what the flags say.
func (o *loginOptions) ask(a *app) (user, password string, err error) {
	if o.fromStdin && (o.password != "" || o.user == "") {
		return "", "", usagef("write: login -u USER --password-stdin", "--password-stdin needs --username, and no --password")
	}
	user, password = o.user, o.password
	in := bufio.NewReader(io.LimitReader(a.in, maxPassword+1))
	if o.fromStdin {
		b, err := io.ReadAll(in)
		if err != nil || len(b) > maxPassword {
			return "", "", errors.Join(errors.New("reading the password: it is no short text"), err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	if (user == "" || password == "") && !isTerminal(a.in) {
		return "", "", usagef("write: login -u USER --password-stdin", "no password: standard input is no terminal")
	}
	if user == "" {
		fmt.Fprint(a.err, "Username: ")
		line, err := in.ReadString('\n')
		if err != nil {
			return "", "", fmt.Errorf("reading the user name: %w", err)
		}
		user = strings.TrimSpace(line)
	}
	if password == "" {
		if password, err = readPassword(a.in, func() { fmt.Fprint(a.err, "Password: ") }); err != nil {
			return "", "", fmt.Errorf("reading the password: %w", err)
		}
		fmt.Fprintln(a.err)
	}
	if user == "" || password == "" {
		return "", "", usagef("", "user name and password cannot be empty")
	}
	return user, password, nil
}
