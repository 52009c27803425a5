// Package agent is what runs inside a node that has services: the key exchange, the dataplane and traffic. An agent is
// pqlab's own binary, executed again in the node's namespace and cgroup; its lab speaks to it by gRPC over a socket that
// it inherits, and it dies with its lab. Secrets stay in it, but for what a lab reveals that was made so, and what it asks for
// by name (Export).
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pqlab/ipsec/strongswan"
	"pqlab/pqc/exchange"
)

// command is the first argument of the binary when it runs as an agent.
const command = "pqlab-agent"

// controlFD is the inherited socket: the first descriptor after standard error.
const controlFD = 3

// Config is what an agent is started with; it travels as its one argument.
type Config struct {
	Node        string
	ManualClock bool // time stands still but for Advance: for specs that need ten minutes at once
	// Reveal makes the agent keep each exchange's secrets for the Secrets call. It is for verifying the
	// combination of the keys independently, and for nothing else.
	Reveal bool
	// Seq is the sequence number after which every SA begins: for specs that need 2^32 packets at once.
	Seq uint64
	// Certificate is a PEM file with the node's TLS certificate and key; empty: a self-signed one is made.
	Certificate string
	Dataplane   string // "gateway" (or empty), "xfrm"
	Port        string // of a gateway: "auto" (or empty), "tun", "packet"
	// Strongswan keys the node's tunnels by classical IKEv2, in the kernel; nil: pqlab does, by its own exchange.
	Strongswan *strongswan.Installation `json:",omitempty"`
}

// Args are the arguments, without the program's name, that make the binary an agent.
func (c Config) Args() []string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // a struct of strings, booleans and numbers always marshals
	}
	return []string{command, string(text)}
}

// Main returns at once unless the process was started as an agent; then it serves and exits. It is called first in main
// and in the TestMain of packages that make labs.
func Main() {
	if len(os.Args) < 2 || os.Args[1] != command {
		return
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("%s: wants its configuration as the one argument; it is started by pqlab, not by hand", command)
	}
	var config Config
	if err := json.Unmarshal([]byte(os.Args[2]), &config); err != nil {
		return fmt.Errorf("%s: configuration: %w", command, err)
	}
	file := os.NewFile(controlFD, "control")
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("agent of %s: control socket: %w", config.Node, err)
	}
	file.Close()
	// The packet loops allocate nothing; what does is short-lived. A lazier collector leaves them the processor.
	debug.SetGCPercent(400)

	server, err := newServer(config)
	if err != nil {
		return fmt.Errorf("agent of %s: %w", config.Node, err)
	}
	// What Close cannot remove goes with the namespace, which may be half gone already.
	defer server.Close()
	if err := server.serve(conn); err != nil {
		return fmt.Errorf("agent of %s: %w", config.Node, err)
	}
	return nil
}

// Error is a failed call to a node's agent.
type Error struct {
	Node, Call string
	Reason     string
	cause      error // one of the sentinels that survive the socket
}

func (e *Error) Error() string { return fmt.Sprintf("node %s: %s", e.Node, e.Reason) }
func (e *Error) Unwrap() error { return e.cause }

// ErrNotCarried says that the lab's network did not carry a flow or a key exchange, as one with links that lose everything
// does not. The agents are well.
var ErrNotCarried = errors.New("the network did not carry it")

// notCarried is ErrNotCarried with the reason, whose text it has.
type notCarried struct{ error }

func (n notCarried) Unwrap() error      { return n.error }
func (notCarried) Is(target error) bool { return target == ErrNotCarried }

// exchangeError is the error of an exchange, ErrNotCarried if the peer was not reached or did not answer in time.
func exchangeError(ctx context.Context, err error) error {
	var timeout net.Error
	silent := errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, exchange.Timeout) || errors.Is(err, strongswan.ErrSilent) ||
		errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
	if silent && ctx.Err() == nil {
		return notCarried{err}
	}
	return err
}

// These sentinels keep their identity on the way from an agent to its lab, so that a lab can decide on them. An error
// that is several of them is the first.
var sentinels = []struct {
	code codes.Code
	err  error
}{
	{codes.Unimplemented, errors.ErrUnsupported}, // this machine cannot
	{codes.Aborted, ErrNotCarried},
	{codes.DeadlineExceeded, context.DeadlineExceeded},
	{codes.Canceled, context.Canceled},
}

// maxReason is in bytes: an error's text travels in a header, which has to be short.
const maxReason = 64 << 10

func toStatus(err error) error {
	if err == nil {
		return nil
	}
	reason := err.Error()
	if len(reason) > maxReason {
		reason = reason[:maxReason] + "…"
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return status.Error(s.code, reason)
		}
	}
	return status.Error(codes.Unknown, reason)
}

func fromStatus(node, call string, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	e := &Error{Node: node, Call: call, Reason: s.Message()}
	if s.Code() == codes.Unavailable {
		e.Reason = "its agent has ended or hangs"
	}
	for _, sentinel := range sentinels {
		if s.Code() == sentinel.code {
			e.cause = sentinel.err
		}
	}
	return e
}
