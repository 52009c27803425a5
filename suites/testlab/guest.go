package testlab

import (
	"errors"
	"os"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"golang.org/x/sys/unix"

	"pqlab/internal/vm/guest"
	"pqlab/links/wire"
	"pqlab/probe"
)

// Modes of running the suites: labels of the specs that run in each.
const (
	Emu = "emu" // on this machine
	VM  = "vm"  // in a guest kernel
)

// slower is how much longer specs may take on an emulated processor, guests side by side included.
const slower = 8

// Patience is how long a spec may wait for what takes at most d on a slow machine with a processor of its own. Timeouts of
// Ginkgo's nodes are scaled by themselves.
func Patience(d time.Duration) time.Duration {
	if guest.Emulated() {
		return slower * d
	}
	return d
}

// beingPatient makes the timeouts of all nodes that are constructed from now on what Patience says.
func beingPatient() {
	AddTreeConstructionNodeArgsTransformer(func(_ types.NodeType, _ Offset, text string, args []any) (string, []any, []error) {
		return text, patient(args), nil
	})
}

func patient(args []any) []any {
	for i, a := range args {
		switch d := a.(type) {
		case NodeTimeout:
			args[i] = NodeTimeout(Patience(time.Duration(d)))
		case SpecTimeout:
			args[i] = SpecTimeout(Patience(time.Duration(d)))
		}
	}
	return args
}

// Place is where specs ran.
type Place struct {
	Kernel    string `json:"kernel"`
	Dataplane string `json:"dataplane"` // of tunnels that ask for none
	Shaper    string `json:"shaper"`    // what links can be shaped by: "tbf+wire"; an outcome says what its labs were shaped by
	Guest     string `json:"guest,omitempty"`
	Note      string `json:"note,omitempty"`
}

// Place finds out where this process runs.
func (e Env) Place() (Place, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Place{}, err
	}
	p := Place{Kernel: unix.ByteSliceToString(u.Release[:]), Dataplane: "none", Shaper: "none", Guest: os.Getenv(guest.Accel)}
	if plane, err := probe.Dataplane(e.Lab.Dataplane); err == nil {
		p.Dataplane = plane.Name
	}
	var shapers []string
	if probe.TBF() == nil {
		shapers = append(shapers, "tbf")
	}
	if probe.Netem() == nil {
		shapers = append(shapers, "netem")
	}
	if wire.Probe() == nil {
		shapers = append(shapers, "wire")
	}
	if shapers != nil {
		p.Shaper = strings.Join(shapers, "+")
	}
	if guest.Emulated() {
		p.Note = "the processor is emulated: no time or rate here is one of pqlab"
	}
	return p, nil
}

// Insist skips every spec where the kernel has no IPsec or no netem: who asked for a guest shall not have specs verified on
// something else. Call it before there are specs.
func (e Env) Insist(p Place) {
	var missing error
	if p.Dataplane != probe.XFRM && e.Lab.Dataplane != probe.Gateway {
		_, missing = probe.Dataplane(probe.XFRM)
	}
	if !strings.Contains(p.Shaper, "netem") {
		missing = errors.Join(missing, probe.Netem())
	}
	if missing != nil {
		BeforeEach(func() { Skip("the guest's kernel: " + missing.Error()) })
	}
}

// fields are the labels of a suite that tell its place.
func (p *Place) fields() map[string]*string {
	return map[string]*string{"kernel": &p.Kernel, "dataplane": &p.Dataplane, "shaper": &p.Shaper, "guest": &p.Guest, "note": &p.Note}
}

// Labels are the place as labels of a suite, which reports of any format have.
func (p Place) Labels() Labels {
	var all Labels
	for _, name := range []string{"kernel", "dataplane", "shaper", "guest", "note"} {
		if value := *p.fields()[name]; value != "" {
			all = append(all, name+": "+value)
		}
	}
	return all
}

// PlaceOf is the place that a suite's labels tell.
func PlaceOf(labels []string) (p Place) {
	fields := p.fields()
	for _, l := range labels {
		name, value, _ := strings.Cut(l, ": ")
		if f, ok := fields[name]; ok {
			*f = value
		}
	}
	return p
}
