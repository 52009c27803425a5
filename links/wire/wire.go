// Package wire drives a model of links (package medium) in real time between TAP interfaces: what the kernel sends over
// one enters the medium, and what leaves the medium is given to the kernel as received on another. It has no model of its
// own.
package wire

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/links/medium"
)

// ErrClosed is returned by the methods of a Wire after its Close.
var ErrClosed = errors.New("wire is closed")

// Wire is a medium with interfaces at its ports, on an operating system thread of its own. Its methods may be called from
// any goroutine; the medium is that thread's alone, and reached through Do.
type Wire struct {
	medium medium.Medium
	start  time.Time
	wake   int // eventfd, readable when there are tasks
	ended  chan struct{}

	mu        sync.Mutex
	tasks     []func(now time.Duration)
	closed    bool
	abandoned bool // closed so

	// The thread's own.
	ports   []*port       // by number; nil: it has no interface
	poll    []unix.PollFd // the first is wake, then those of the ports
	ready   bool          // of some port there may be more to read
	worked  bool          // something was read or given out since the last wait
	awake   awake
	looked  time.Duration // awake: what poll says of the ports
	cutter  cutter
	buffers buffers
	spin    spin
	receive func(fd int, b []byte) (int, error) // read
}

// port is an interface at a port of the medium.
type port struct {
	fd    int
	late  lateness
	ready bool // there may be something to read
	attention
}

// New starts a wire with no interfaces yet.
func New(m medium.Medium) (*Wire, error) {
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wire: eventfd: %w", err)
	}
	w := &Wire{medium: m, start: time.Now(), wake: wake, ended: make(chan struct{}), receive: read}
	w.cutter.buffers = &w.buffers
	w.poll = []unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}}
	go netns.OnThread(w.run)
	return w, nil
}

// Attach makes a TAP interface in the namespace, down, and joins it to a port of the medium that has none. Detach or Close
// remove it.
func (w *Wire) Attach(number int, ns *netns.Namespace, name string) error {
	fd, err := openTAP(ns, name)
	if err != nil {
		return err
	}
	taken := false
	err = w.Do(func(time.Duration) {
		for len(w.ports) <= number {
			w.ports = append(w.ports, nil)
			w.poll = append(w.poll, unix.PollFd{Fd: -1})
		}
		if taken = w.ports[number] != nil; !taken {
			w.ports[number] = &port{fd: fd, late: newLateness()}
			w.poll[number+1] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		}
	})
	if err == nil && taken {
		err = fmt.Errorf("wire: port %d has an interface", number)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return nil
}

// Detach removes the interface of a port. What is on its way there is lost. A port without one, or of a closed wire, is no
// error.
func (w *Wire) Detach(number int) error {
	var errClose error
	err := w.Do(func(time.Duration) {
		if p := w.port(number); p != nil {
			errClose = unix.Close(p.fd)
			w.ports[number], w.poll[number+1] = nil, unix.PollFd{Fd: -1}
		}
	})
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return errors.Join(err, errClose)
}

// port is that of the number; nil if it has no interface.
func (w *Wire) port(number int) *port {
	if number < 0 || number >= len(w.ports) {
		return nil
	}
	return w.ports[number]
}

// Do has f called on the wire's thread, between packets, and waits until it has returned. f may use the medium; now is
// the medium's time. What an interface holds that the wire has not read enters the medium after f.
func (w *Wire) Do(f func(now time.Duration)) error {
	done := make(chan struct{})
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrClosed
	}
	w.tasks = append(w.tasks, func(now time.Duration) {
		f(now)
		close(done)
	})
	w.rouse()
	w.mu.Unlock()
	<-done
	return nil
}

// rouse makes the thread look at what it is asked. The caller has mu, so that the descriptor is not closed.
func (w *Wire) rouse() {
	one := [8]byte{7: 1}
	for {
		if _, err := unix.Write(w.wake, one[:]); err != unix.EINTR {
			return // EAGAIN: it is roused
		}
	}
}

// Lateness is that of what left by the port since its interface was attached; zero if it has none.
func (w *Wire) Lateness(port int) (l Lateness, err error) {
	err = w.Do(func(time.Duration) {
		if p := w.port(port); p != nil {
			l = p.late.snapshot()
		}
	})
	return l, err
}

// Close ends the thread and removes the interfaces, with what is on its way. A second Close does nothing.
func (w *Wire) Close() error { return w.close(false) }

// Abandon is Close, but leaves the interfaces, dead, to their namespaces, which must be about to be freed: the kernel takes
// tens of milliseconds to remove one by itself, and no longer for all of many namespaces together.
func (w *Wire) Abandon() error { return w.close(true) }

func (w *Wire) close(abandon bool) error {
	w.mu.Lock()
	if !w.closed {
		w.closed, w.abandoned = true, abandon
		w.rouse()
	}
	w.mu.Unlock()
	<-w.ended
	return nil
}

// run is the thread, which ends with it: its timer slack and priority are no other goroutine's.
func (w *Wire) run() error {
	// Timers of a thread may be 50 µs late by default, so that the kernel wakes up less often. An error costs precision.
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	// Who may (an ordinary user may not) has packets go before what sends them.
	unix.Setpriority(unix.PRIO_PROCESS, 0, priority)
	defer w.end()
	for {
		if w.poll[0].Revents != 0 && !w.perform() {
			return nil
		}
		w.ready, w.worked = false, false
		for i, p := range w.ports {
			if p == nil {
				continue
			}
			if p.ready = p.ready || w.poll[i+1].Revents != 0; p.ready {
				w.read(i, p)
			} else {
				p.empty(w.looked)
			}
		}
		w.medium.Leave(w.now(), w.deliver)
		w.wait()
	}
}

func (w *Wire) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.ports {
		if p == nil {
			continue
		}
		if w.abandoned { // an interface that persists is not removed with its descriptor; one that does not is
			unix.IoctlSetInt(p.fd, unix.TUNSETPERSIST, 1)
		}
		unix.Close(p.fd)
	}
	unix.Close(w.wake)
	close(w.ended)
}

func (w *Wire) now() time.Duration { return time.Since(w.start) }

// perform does the tasks. It returns false if the wire is to end.
func (w *Wire) perform() bool {
	var count [8]byte
	unix.Read(w.wake, count[:]) // which makes it wait for the next
	w.mu.Lock()
	tasks := w.tasks
	w.tasks = nil
	closed := w.closed
	w.mu.Unlock()
	for _, task := range tasks {
		task(w.now())
	}
	return !closed
}

// priority of the thread, as nice(1) has it.
const priority = -15

// batch is how many packets are read before others have their turn.
const batch = 16

func (w *Wire) read(number int, p *port) {
	now := w.now()
	p.look(w.awake.at(now))
	for range batch {
		data := w.buffers.get(biggest)
		n, err := w.receive(p.fd, data)
		if err != nil || n <= headers {
			w.buffers.put(data)
			if err == unix.EINTR {
				continue
			}
			p.ready = false
			p.empty(w.awake.at(now))
			if err != nil && err != unix.EAGAIN { // the interface was removed
				w.poll[number+1].Fd = -1
			}
			return
		}
		w.worked = true
		data = data[:n]
		if n <= biggest/2 {
			small := w.buffers.get(n)
			copy(small, data)
			w.buffers.put(data)
			data = small
		}
		now = w.now()
		waited := p.waited(w.awake.at(now))
		w.cutter.cut(data, w.medium.Whole(number), func(p medium.Packet) {
			p.Waited = waited
			w.medium.Enter(now, number, p)
		})
	}
	w.ready = true
}

// deliver gives a packet to the kernel.
func (w *Wire) deliver(to int, p medium.Packet) {
	w.worked = true
	if port := w.port(to); port != nil {
		if p.Flip > 0 {
			flip(p.Data, p.Flip)
		}
		if p.Due > p.Entered {
			port.late.add(w.now() - p.Due + p.Waited)
		}
		write(port.fd, p.Data)
	}
	w.buffers.put(p.Data)
}
