;; A component of the world in other-world.wit: sound, but not a guest of ours.
(module
  (import "example:elsewhere/shouting" "shout" (func $shout (param i32)))
  (import "env" "memory" (memory 1))
  (export "memory" (memory 0))
  (func (export "run") (result i32)
    (call $shout (i32.const 11))
    (i32.const 0)))
