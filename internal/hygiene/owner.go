package hygiene

import (
	"crypto/rand"
	"os"
	"strconv"
	"strings"
)

// Variable is the environment variable by which processes are told apart: everything that pqlab starts passes it on.
const Variable = "PQLAB_OWNER"

// Owner is who answers for a leftover: one process, all that descend from it, and all that carry its token, whoever
// their parent is by now.
type Owner struct {
	PID   int // 0: none
	Token string
}

// Self makes this process an owner: its token goes into the environment of whatever it starts from now on. An owner
// within an owner extends the outer one's token, so that both know what the inner one starts. Call it once, before the
// first process is started that it is to cover; t.Setenv and parallel tests do not go together with it.
func Self() Owner {
	o := Owner{PID: os.Getpid(), Token: extend(os.Getenv(Variable))}
	os.Setenv(Variable, o.Token)
	return o
}

// NewOwner returns an owner without a process, for what is started with its Env.
func NewOwner() Owner { return Owner{Token: extend(os.Getenv(Variable))} }

// Env is the owner's variable, for an exec.Cmd's Env.
func (o Owner) Env() string { return Variable + "=" + o.Token }

func extend(token string) string {
	id := strconv.Itoa(os.Getpid()) + "." + rand.Text()[:8]
	if token == "" {
		return id
	}
	return token + "/" + id
}

// marks tells whether a process that carries token is the owner's.
func (o Owner) marks(token string) bool {
	return o.Token != "" && (token == o.Token || strings.HasPrefix(token, o.Token+"/"))
}

// owns tells whether the process pid of the snapshot is the owner's.
func (o Owner) owns(s Snapshot, pid int) bool {
	for seen := 0; pid > 1 && seen < len(s.processes); seen++ {
		p, ok := s.processes[pid]
		if pid == o.PID || ok && o.marks(p.token) {
			return true
		}
		if !ok {
			return false
		}
		pid = p.parent
	}
	return false
}
