package node

func newLoop(o Options) Node { panic("later") }
