package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"pqlab/links"
	"pqlab/nodes"
	"pqlab/supervisor"
	"pqlab/topology"
)

// Exit statuses.
const (
	exitOK          = 0
	exitFailed      = 1 // a check failed, or something broke
	exitUsage       = 2 // bad input
	exitUnsupported = 3 // this machine cannot
	exitInterrupted = 130
)

// usageError is the user's mistake.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitError ends the program with a status, after everything has been said.
type exitError int

func (exitError) Error() string { return "" }

func exitCode(err error) int {
	var (
		usage    usageError
		mistakes topology.Errors
		start    *supervisor.StartError
	)
	switch {
	case errors.As(err, &start):
		return start.Exit
	case errors.As(err, &usage), errors.As(err, &mistakes), errors.Is(err, links.ErrUnknownShaper), errors.Is(err, nodes.ErrUnknownProfile),
		errors.Is(err, supervisor.ErrNotFound), errors.Is(err, supervisor.ErrNoNode), errors.Is(err, supervisor.ErrExists):
		return exitUsage
	case errors.Is(err, errors.ErrUnsupported):
		return exitUnsupported
	}
	return exitFailed
}

// args turns a complaint about positional arguments into a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		if err := check(c, a); err != nil {
			return usageError{errors.Join(err, errors.New("see "+c.CommandPath()+" --help"))}
		}
		return nil
	}
}

// load finds a topology: a built-in lab by its name, or a YAML file.
func load(name string) (*topology.Topology, error) {
	for _, b := range topology.Builtins() {
		if b.Name == name {
			return topology.Builtin(name)
		}
	}
	t, err := topology.Load(name)
	if errors.Is(err, fs.ErrNotExist) {
		_, unknown := topology.Builtin(name)
		return nil, usageError{errors.Join(errors.New("no file "+name), unknown)}
	}
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return nil, usageError{err}
	}
	return t, err
}

// unsupported marks what this machine or this version cannot do.
func unsupported(err error) error { return fmt.Errorf("%w (%w)", err, errors.ErrUnsupported) }
