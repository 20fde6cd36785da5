#include "cpu/thread_pool.h"

#include <unistd.h>

#include <chrono>

namespace wmf {

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(int n, const std::function<void(int)>& task,
                     const std::function<void()>& idle) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (static_cast<int>(threads_.size()) < n - 1) {
      const int index = static_cast<int>(threads_.size()) + 1;
      threads_.emplace_back([this, index] { work(index); });
    }
    task_ = &task;
    n_ = n;
    running_ = n - 1;
    error_ = nullptr;
    ++generation_;
  }
  wake_.notify_all();

  std::exception_ptr error;
  try {
    task(0);
  } catch (...) {
    error = std::current_exception();
  }

  // The tasks borrow the caller's arrays, so it must not leave before they have ended, whatever
  // happens.
  std::unique_lock<std::mutex> lock(mutex_);
  while (
      !finished_.wait_for(lock, std::chrono::milliseconds(50), [this] { return running_ == 0; })) {
    lock.unlock();
    idle();
    lock.lock();
  }
  task_ = nullptr;
  if (!error) error = error_;
  if (error) std::rethrow_exception(error);
}

void ThreadPool::work(int index) {
  long seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    // A thread that was just created also joins the run it was created for: seen starts below it.
    wake_.wait(lock,
               [&] { return stop_ || (generation_ != seen && index < n_ && task_ != nullptr); });
    if (stop_) return;
    seen = generation_;
    const std::function<void(int)>& task = *task_;
    lock.unlock();
    std::exception_ptr error;
    try {
      task(index);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (error) error_ = error;
    if (--running_ == 0) finished_.notify_all();
  }
}

namespace {

struct SharedPool {
  pid_t owner;
  std::mutex in_use;
  ThreadPool pool;
};

// Never destroyed: at exit its threads are simply gone, and so are they in a fork()ed child, where
// joining them would wait for ever. The mutex may have been held by a thread that the child does
// not have.
SharedPool& shared_pool() {
  static std::mutex guard_of_first_use;
  static SharedPool* shared = nullptr;
  const pid_t pid = getpid();
  SharedPool* current = __atomic_load_n(&shared, __ATOMIC_ACQUIRE);
  if (current == nullptr || current->owner != pid) {
    const std::lock_guard<std::mutex> lock(guard_of_first_use);
    current = __atomic_load_n(&shared, __ATOMIC_ACQUIRE);
    if (current == nullptr || current->owner != pid) {
      current = new SharedPool{pid, {}, {}};
      __atomic_store_n(&shared, current, __ATOMIC_RELEASE);
    }
  }
  return *current;
}

}  // namespace

void run_in_parallel(int n, const std::function<void(int)>& task,
                     const std::function<void()>& idle) {
  if (n <= 1) {
    task(0);
    return;
  }
  SharedPool& shared = shared_pool();
  const std::unique_lock<std::mutex> mine(shared.in_use, std::try_to_lock);
  if (mine.owns_lock()) {
    shared.pool.run(n, task, idle);
  } else {
    ThreadPool().run(n, task, idle);
  }
}

}  // namespace wmf
