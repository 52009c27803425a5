package vm

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of errors. What Run returns is an *Error that wraps one of them, or what ended ctx.
var (
	ErrQEMU    = errors.New("QEMU is missing or does not start")
	ErrKVM     = errors.New("KVM boots no guest here")
	ErrBoot    = errors.New("the guest does not boot")
	ErrFiles   = errors.New("the guest cannot see the host's files")
	ErrModules = errors.New("the guest's kernel lacks something")
	ErrHost    = errors.New("this machine cannot start a guest")
	ErrCommand = errors.New("the command cannot be started")
	ErrDied    = errors.New("the guest died while the command ran")
	ErrTimeout = errors.New("the command took too long")
	ErrStopped = errors.New("the guest was stopped")
)

// Error says why there is no result of the command, and what to do.
type Error struct {
	Kind    error // one of those above
	Err     error // more, or nil
	Remedy  string
	Console string // the last that the guest's kernel said, where that may help
	Status  int    // the status a shell gives, where the command cannot be started
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Console != "" {
		fmt.Fprintf(&b, "%s\n(the end of the guest's console)\n", strings.TrimRight(e.Console, "\n"))
	}
	b.WriteString(e.Kind.Error())
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Remedy != "" {
		fmt.Fprintf(&b, "; %s", e.Remedy)
	}
	return b.String()
}

func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Is makes it errors.ErrUnsupported where it is the machine that cannot.
func (e *Error) Is(target error) bool {
	if target != errors.ErrUnsupported {
		return false
	}
	switch e.Kind {
	case ErrQEMU, ErrKVM, ErrBoot, ErrFiles, ErrModules, ErrHost:
		return true
	}
	return false
}
