package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"pqlab/lab"
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
		fates    *links.FatesError
		start    *supervisor.StartError
	)
	switch {
	case errors.As(err, &start):
		return start.Exit
	case errors.As(err, &usage), errors.As(err, &mistakes), errors.As(err, &fates), errors.Is(err, links.ErrUnknownShaper), errors.Is(err, nodes.ErrUnknownProfile), errors.Is(err, lab.ErrFile), errors.Is(err, lab.ErrUnshaped), errors.Is(err, lab.ErrVerifiedFates),
		errors.Is(err, supervisor.ErrName), errors.Is(err, supervisor.ErrNotFound),
		errors.Is(err, supervisor.ErrNoNode), errors.Is(err, supervisor.ErrNoLink), errors.Is(err, supervisor.ErrInput), errors.Is(err, supervisor.ErrExists):
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
	if err == nil && t.Name == "" {
		t.Name = labName(name)
	}
	return t, err
}

// labName makes a lab's name of a file's.
func labName(file string) string {
	base := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	name := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, base), "-")
	if name == "" {
		return "lab"
	}
	return name[:min(len(name), 32)]
}

// unsupportedError is what this machine or this version cannot do.
type unsupportedError struct{ error }

func (e unsupportedError) Unwrap() error        { return e.error }
func (e unsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

func unsupported(err error) error { return unsupportedError{err} }

// checkFile refuses, before anything is made, a file that cannot be written where it is. An empty name is none to check.
func checkFile(flag, path string) error {
	if path == "" {
		return nil
	}
	refuse := func(err error) error { return usageError{fmt.Errorf("--%s: %w", flag, err)} }
	info, err := os.Stat(path)
	switch {
	case err == nil && info.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return refuse(err)
		}
		return f.Close()
	case err == nil && info.IsDir():
		return refuse(&fs.PathError{Op: "write", Path: path, Err: unix.EISDIR})
	case err == nil: // a terminal or a pipe, which a try would disturb
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return refuse(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return refuse(err)
	}
	return errors.Join(f.Close(), os.Remove(path))
}
