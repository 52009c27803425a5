// Package supervisor keeps a lab alive beyond the command that started it, and lets later commands reach it.
//
// One process holds the lab: Launch starts it in a session of its own, Run is its life. It listens on an abstract unix
// socket, "@pqlab/UID/NAME", whose name the kernel gives to one process at a time and takes back with the last
// descriptor: whatever ends the supervisor, no file stays behind. List finds the sockets in /proc/net/unix; Dial, Exec,
// Status and Down talk to one. Abstract sockets have no permissions, so both sides ask the kernel who the other is
// (SO_PEERCRED): a lab serves its owner and root, and a client trusts nobody else's lab.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// Lab is what a supervisor holds. Its methods may be called from any goroutine.
type Lab interface {
	// Status describes the lab; Name, State, PID and UID are filled in by the supervisor.
	Status(context.Context) (Status, error)
	// Exec starts a command in a node. The files of the command stay the caller's, who closes them once Exec has
	// returned. The lab sees to it that the process, and what it starts, dies with the supervisor, however that dies. An
	// unknown node is ErrNoNode.
	Exec(ctx context.Context, node string, cmd Command) (Process, error)
	// SetLink changes what a link does to packets: all of change, each "KEY=VALUE", or after an error nothing; of what
	// the node from sends, or of both directions if from is empty. A link or end that there is not is ErrNoLink, what
	// makes no sense ErrInput, and what the lab's shaper cannot do errors.ErrUnsupported.
	// It returns the link as this change left it, whatever others change at the same time.
	SetLink(ctx context.Context, link, from string, change []string) (LinkStatus, error)
	// Capture begins to capture links, at both ends of each, and calls news, one call at a time, until ctx ends; news may
	// wait for a client. The sockets are the caller's, who closes them. A link that there is not is ErrNoLink.
	Capture(ctx context.Context, q CaptureRequest, news func(CaptureNews)) (Capture, error)
	// Down takes the lab down, going on after an error and returning all of them (errors.Join). It is called once, after
	// every process that Exec started has been told to end.
	Down(context.Context) error
}

// Command is what runs in a node.
type Command struct {
	Path string   // executable; a Client searches it in its PATH, a Lab gets what was found
	Args []string // without the name
	Env  []string // "KEY=value", all of them
	Dir  string   // if empty, the supervisor's

	Stdin, Stdout, Stderr *os.File // nil is /dev/null

	// TTY: Stdin is a terminal. In a Lab it shall be the controlling one of a session of the process's own.
	TTY bool
}

// Process is a command that runs in a node. It leads a process group, and what is left of the group is killed when it
// ends. Its methods may be called from any goroutine.
type Process interface {
	Pid() int
	// Signal reaches the whole process group. A process that has ended is os.ErrProcessDone.
	Signal(syscall.Signal) error
	// Wait waits for the end. An exit that is no success is an *exec.ExitError.
	Wait() error
}

// State is where a lab is in its life.
type State string

const (
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
)

// Status describes a lab.
type Status struct {
	Name     string         `json:"name"`
	Topology string         `json:"topology"`
	State    State          `json:"state"`
	PID      int            `json:"pid"` // of the supervisor
	UID      int            `json:"uid"` // of its owner, as the client sees it
	Since    time.Time      `json:"since"`
	Nodes    []NodeStatus   `json:"nodes"`
	Links    []LinkStatus   `json:"links"`
	Tunnels  []TunnelStatus `json:"tunnels"`
	WiFi     []WiFiCell     `json:"wifi,omitempty"` // those with airtime
}

// NodeStatus describes a node.
type NodeStatus struct {
	Name      string         `json:"name"`
	Kind      string         `json:"kind"`
	Addresses []netip.Prefix `json:"addresses"`
	PID       int            `json:"pid,omitempty"` // of its agent; 0: it has none
	CPU       float64        `json:"cpu_seconds"`
	Error     string         `json:"error,omitempty"` // what is wrong with it
}

// LinkStatus describes a link.
type LinkStatus struct {
	Name   string      `json:"name"`
	Kind   string      `json:"kind"`
	A      string      `json:"a"` // "node:interface"
	B      string      `json:"b"`
	Shaper string      `json:"shaper"`
	Seeded bool        `json:"seeded"` // whether what is random in it is that of its seed
	FromA  ShapeStatus `json:"from_a"`
	FromB  ShapeStatus `json:"from_b"`
}

// ShapeStatus is what a link does to packets of one direction now. Shares and probabilities are from 0 to 1.
type ShapeStatus struct {
	Text            string        `json:"text"`                      // all of it, for people
	Rate            uint64        `json:"bits_per_second,omitempty"` // 0: unshaped
	Delay           time.Duration `json:"delay_ns,omitempty"`
	Jitter          time.Duration `json:"jitter_ns,omitempty"`
	Distribution    string        `json:"distribution,omitempty"` // of the delay, where there is a jitter
	Unordered       bool          `json:"unordered,omitempty"`
	Loss            float64       `json:"loss,omitempty"`
	LossCorrelation float64       `json:"loss_correlation,omitempty"`
	GilbertElliott  []float64     `json:"gilbert_elliott,omitempty"` // p, r, loss in the bad state, loss in the good one
	Duplication     float64       `json:"duplication,omitempty"`
	Reordering      float64       `json:"reordering,omitempty"`
	Corruption      float64       `json:"corruption,omitempty"`

	RateTrace *RateTraceStatus `json:"rate_trace,omitempty"`
	LossTrace *LossTraceStatus `json:"loss_trace,omitempty"`
	Queue     *QueueStatus     `json:"queue,omitempty"` // that was asked for
	Outages   []OutageStatus   `json:"outages,omitempty"`

	Lateness *Lateness `json:"lateness,omitempty"` // of shaper wire; of the others nobody knows
}

// RateTraceStatus tells of a trace, which itself may be long.
type RateTraceStatus struct {
	Steps  int           `json:"steps"`
	Length time.Duration `json:"length_ns"`
	Mean   uint64        `json:"mean_bits_per_second"`
}

// LossTraceStatus tells of a trace, which itself may be long.
type LossTraceStatus struct {
	Packets int `json:"packets"`
	Lost    int `json:"lost"` // of these
}

// QueueStatus is what holds the packets that wait for the rate. Its size is in bytes or in time, or, of neither, the default.
type QueueStatus struct {
	Kind     string        `json:"kind"`
	Bytes    uint64        `json:"bytes,omitempty"`
	Time     time.Duration `json:"time_ns,omitempty"`
	Target   time.Duration `json:"target_ns,omitempty"` // of CoDel
	Interval time.Duration `json:"interval_ns,omitempty"`
}

// OutageStatus is a time in which nothing enters. Every is 0 of one that comes once.
type OutageStatus struct {
	Start  time.Duration `json:"start_ns"`
	Length time.Duration `json:"length_ns"`
	Every  time.Duration `json:"every_ns,omitempty"`
}

// Lateness is how well the machine kept the schedule of a direction since the lab is up.
type Lateness struct {
	Packets int64         `json:"packets"` // that were delayed
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
	Max     time.Duration `json:"max_ns"`
	Missed  uint64        `json:"missed"`         // packets that nobody read in time, lost before the link
	Late    []string      `json:"late,omitempty"` // why it is late, for people; none: it is not
}

// TunnelStatus describes a tunnel.
type TunnelStatus struct {
	Name      string            `json:"name"`
	A         string            `json:"a"` // nodes
	B         string            `json:"b"`
	Suite     string            `json:"suite"`
	Dataplane string            `json:"dataplane"`
	Rekeys    uint64            `json:"rekeys"`
	SAs       []SAStatus        `json:"sas"`
	Drops     map[string]uint64 `json:"drops,omitempty"` // packets, by reason
	Error     string            `json:"error,omitempty"` // why it is not up
}

// SAStatus describes one direction of a tunnel at one of its ends.
type SAStatus struct {
	Node      string `json:"node"`
	Direction string `json:"direction"` // "in" or "out"
	SPI       uint32 `json:"spi"`
	Blocks    uint64 `json:"blocks"`
	Bytes     uint64 `json:"bytes"`
	Packets   uint64 `json:"packets"`
}

// Exit statuses of Client.Exec when it is not the command's own that is returned.
const (
	ExitLost       = 125 // the command could not be started, or the supervisor was lost
	ExitCannotExec = 126 // the command was found and cannot be executed
	ExitNotFound   = 127 // the command was not found
)

var (
	// ErrName: no lab can have that name.
	ErrName = errors.New("bad lab name")
	// ErrNotFound: no lab of that name is up.
	ErrNotFound = errors.New("no such lab")
	// ErrExists: the name of the lab is taken.
	ErrExists = errors.New("lab is up already")
	// ErrForeign: the socket is another user's.
	ErrForeign = errors.New("belongs to another user")
	// ErrDenied: the supervisor does not serve this user.
	ErrDenied = errors.New("permission denied")
	// ErrNoNode: the lab has no node of that name.
	ErrNoNode = errors.New("no such node")
	// ErrNoLink: the lab has no link of that name, or it does not end at that node.
	ErrNoLink = errors.New("no such link")
	// ErrInput: what was asked for makes no sense.
	ErrInput = errors.New("bad input")
	// ErrState: the lab is starting or stopping, and cannot do that now.
	ErrState = errors.New("lab is not running")
	// ErrBusy: the supervisor serves as many clients as it can.
	ErrBusy = errors.New("too many clients")
	// ErrMute: the supervisor does not answer in time.
	ErrMute = errors.New("no answer in time")
	// ErrProtocol: the other side speaks another version of the protocol, or none.
	ErrProtocol = errors.New("protocol")
)

// LostError says that the supervisor went away in the middle of a request, and the lab with it.
type LostError struct {
	Lab  string
	Last string // the end of what the supervisor and its children printed; may be empty
}

func (e *LostError) Error() string {
	s := fmt.Sprintf("lab %s: its supervisor is gone, and the lab with it", e.Lab)
	if e.Last != "" {
		s += "; its last words:\n" + strings.TrimRight(e.Last, "\n")
	}
	return s
}

// StartError says why Launch has no lab to show for it. Nothing of the supervisor is left.
type StartError struct {
	Lab    string
	Reason string
	Exit   int    // exit status that the supervisor asks for
	Output string // the end of what it printed; may be empty

	cause error
}

func (e *StartError) Error() string { return fmt.Sprintf("lab %s did not start: %s", e.Lab, e.Reason) }

// Unwrap gives what ended the wait, if that was the caller's context.
func (e *StartError) Unwrap() error { return e.cause }
