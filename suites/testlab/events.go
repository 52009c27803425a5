package testlab

import (
	"context"
	"fmt"
	"slices"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/lab"
)

// Events are what the tunnels of a lab told since the collection began.
type Events struct {
	mu      sync.Mutex
	all     []agent.Event
	changed chan struct{} // closed and replaced at each event
}

// Collect begins to collect a lab's events, until the spec ends.
func Collect(l *lab.Lab) *Events {
	GinkgoHelper()
	e := &Events{changed: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	DeferCleanup(stop)
	Expect(l.Events(ctx, e.note)).To(Succeed())
	return e
}

func (e *Events) note(event agent.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
	close(e.changed)
	e.changed = make(chan struct{})
}

// All gives what was told until now, in the order of its arrival here.
func (e *Events) All() []agent.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

// Until waits until what was told is enough, and returns it. It fails the spec when ctx ends first, or when an event was
// lost on its way.
func (e *Events) Until(ctx context.Context, what string, enough func([]agent.Event) bool) []agent.Event {
	GinkgoHelper()
	for {
		e.mu.Lock()
		all, changed := slices.Clone(e.all), e.changed
		e.mu.Unlock()
		for _, event := range all {
			if event.Missed > 0 {
				Fail(fmt.Sprintf("node %s: %d events were lost", event.Node, event.Missed))
			}
		}
		if enough(all) {
			return all
		}
		select {
		case <-changed:
		case <-ctx.Done():
			Fail(fmt.Sprintf("%s: not until %v, after %+v", what, context.Cause(ctx), all[max(0, len(all)-8):]))
		}
	}
}
