package keying

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// maxAnswering bounds the exchanges that a node answers at once; more wait in the listener's queue. It bounds what
// strangers can make a node hold, because each costs a TLS session.
const maxAnswering = 64

// maxStrangers bounds those of them that come from where no tunnel has its peer; more are hung up on. So the places that
// peers need are not taken by others, who can hold one for a deadline without a word.
const maxStrangers = 8

// acceptPause is how long a node without free descriptors or memory waits for some.
const acceptPause = 50 * time.Millisecond

// Serve answers exchanges until the listener is closed, and returns when the last of them has ended. failed is told of
// each that came to nothing, and once when strangers begin to be too many. An error is the listener's own.
func (s *Service) Serve(ctx context.Context, l net.Listener, failed func(error)) error {
	var answering sync.WaitGroup
	defer answering.Wait()
	places, strangers := make(chan struct{}, maxAnswering), make(chan struct{}, maxStrangers)
	crowded := false
	for {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case passing(err):
			select {
			case <-time.After(acceptPause):
				continue
			case <-ctx.Done():
				return nil
			}
		case err != nil:
			return err
		}
		stranger := !s.hasPeerAt(conn.RemoteAddr())
		if stranger {
			select {
			case strangers <- struct{}{}:
				crowded = false
			default:
				conn.Close()
				if !crowded {
					failed(fmt.Errorf("key exchange from %v, where no peer is: %d such are under way; further ones are hung up on",
						conn.RemoteAddr(), maxStrangers))
				}
				crowded = true
				continue
			}
		}
		places <- struct{}{}
		answering.Go(func() {
			err := s.Answer(ctx, conn)
			<-places
			if stranger {
				<-strangers
			}
			if err != nil {
				failed(err)
			}
		})
	}
}

// passing says whether a listener that failed so may work again.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// hasPeerAt says whether a tunnel's peer is at an address: exchanges come from there, see dialTCP.
func (s *Service) hasPeerAt(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	at := tcp.AddrPort().Addr().Unmap()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		if p.Remote.Unmap() == at {
			return true
		}
	}
	return false
}
